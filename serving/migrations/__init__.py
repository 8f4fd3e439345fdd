"""Versions of the database's schema, for Alembic."""
