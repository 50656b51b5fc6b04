"""The page for trying out trained models: a small HTTP server and its answers; nothing is written to disk."""
