"""What Alembic runs to migrate: on the connection that the service gives it."""

from alembic import context

from metarl.serving.models import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
