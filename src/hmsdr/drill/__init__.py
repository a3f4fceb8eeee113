"""Practice: a real fault in a lab, the product's own answer to it, and a report of what users and data went through."""
