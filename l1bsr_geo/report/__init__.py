"""What a result is worth: pictures, figures, one page."""
