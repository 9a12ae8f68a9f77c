"""The web views of the trading worker: any worker answers for the whole group (design: architecture "Queries")."""

from streamapp.web.registration import register

__all__ = ["register"]
