"""The jobs, one module each; `__main__` lists them."""
