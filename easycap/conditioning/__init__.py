"""Text conditions, which a captioner reads in addition to the image: tags, and drafts of the caption."""
