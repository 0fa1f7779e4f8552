"""Manage the chat: ``python examples/django_chat/manage.py runserver``."""

import os
import sys
from pathlib import Path

from django.core.management import execute_from_command_line

sys.path[0] = str(Path(__file__).parent.parent)
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_chat.settings")
execute_from_command_line(sys.argv)
