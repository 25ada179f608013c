"""What a fitted method answers with: heads on image features, and with an image tower a whole classifier of pixels."""
