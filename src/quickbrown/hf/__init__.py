"""The face that people know from transformers: its names, its defaults, its arrays in and out."""
