"""Serve the chat: ``gunicorn -c examples/django_chat/gunicorn_config.py``."""

import os
from pathlib import Path

chdir = str(Path(__file__).parent.parent)
raw_env = ["DJANGO_SETTINGS_MODULE=django_chat.settings"]
wsgi_app = "django.core.wsgi:get_wsgi_application()"
bind = os.environ.get("CHAT_BIND", "127.0.0.1:8000")
worker_class = "gthread"
threads = 4


def on_starting(server: object) -> None:
    """Create the tables of the database before the first worker starts."""
    import django
    from django.core.management import call_command
    from django.db import connections

    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)
    connections.close_all()
