"""The URLs of the chat."""

from django.contrib.auth.views import LogoutView
from django.urls import path

from .live import live, notices, talk
from .views import enter, home, room

urlpatterns = [
    path("", home, name="home"),
    path("enter/", enter, name="enter"),
    path("leave/", LogoutView.as_view(), name="leave"),
    path("rooms/<slug:room>/", room, name="room"),
    path("rooms/<slug:room>/live/", talk, name="talk"),
    path("notices/", notices, name="notices"),
    path("metrics/", live.metrics_view),
]
