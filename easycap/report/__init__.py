"""Pages and tables made from the files of runs; nothing here loads torch or a live object of a run."""
