"""What was decided beforehand: frozen models, loaded from YAML."""
