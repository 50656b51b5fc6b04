"""Captioners of Hugging Face's transformers behind the interface of our own."""
