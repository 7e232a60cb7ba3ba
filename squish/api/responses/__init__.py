"""OpenAI's Responses API: Structs, and pure functions to and from the values of generation."""
