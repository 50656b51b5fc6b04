"""A trained model as a folder or on the Hugging Face hub, with a model card."""
