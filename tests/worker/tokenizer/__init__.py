"""Tests of opening tokenizers."""
