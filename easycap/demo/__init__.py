"""The page on which one tries out trained models: a small HTTP server and its answers; nothing is written to disk."""
