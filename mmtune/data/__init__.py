"""From files to batches: formats, templates, encoding, images, collation. Never imports models or config."""
