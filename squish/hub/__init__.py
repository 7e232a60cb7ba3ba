"""The Hugging Face Hub: asking it, and finding models."""
