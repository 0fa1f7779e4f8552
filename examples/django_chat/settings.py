"""The settings of the chat."""

import os
from pathlib import Path

HERE = Path(__file__).parent

SECRET_KEY = os.environ.get("CHAT_SECRET", "only for trying it out")
DEBUG = "CHAT_SECRET" not in os.environ
ALLOWED_HOSTS = os.environ.get("CHAT_HOSTS", "localhost,127.0.0.1,[::1]").split(",")
ROOT_URLCONF = "django_chat.urls"
LOGIN_URL = "enter"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "home"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "wsframe.django",
    "django_chat",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [HERE / "templates"],
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("CHAT_DATABASE", HERE / "chat.sqlite3"),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = os.environ.get("TZ", "UTC")

# Several worker processes need Redis to share the events of their clients.
WSFRAME = {"redis": os.environ.get("CHAT_REDIS")}
