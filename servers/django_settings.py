"""The settings of Django's development server, which serves the application under test."""

SECRET_KEY = "secret"
DEBUG = True
ALLOWED_HOSTS = ["*"]
WSGI_APPLICATION = "servers.app.application"
