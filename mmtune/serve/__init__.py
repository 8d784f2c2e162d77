"""Models for programs and browsers: one worker that answers, an API of OpenAI's form. Training lives elsewhere."""
