"""A GGUF file as an ordinary Hugging Face folder, made once into the cache."""
