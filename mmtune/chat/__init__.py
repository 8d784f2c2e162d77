"""Ask a model: batched generation, chat sessions, the terminal loop."""
