"""A model's tokenizer and chat template, opened without transformers where that was shown to make no difference."""
