"""The messages of the chat."""

from django.conf import settings
from django.db import models


class Message(models.Model):
    """A message in a room."""

    room = models.SlugField()
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    text = models.CharField(max_length=500)
    sent = models.DateTimeField(auto_now_add=True)
