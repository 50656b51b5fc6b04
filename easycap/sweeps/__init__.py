"""Many runs from one command: planned, launched, estimated."""
