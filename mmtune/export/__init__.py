"""Results out: a run as a folder that other libraries load alone. One file a format; `formats.py` lists them."""
