"""The scheduling laboratory for LLM serving."""
