"""The HTTP API: ``/v1`` for inference, ``/admin`` for the owner's programs. HTTP only; meaning is in ``protocols``."""
