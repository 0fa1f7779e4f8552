"""The pages."""

from __future__ import annotations

from django import forms
from django.contrib.auth import authenticate, login
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from .live import latest

ROOMS = ("lobby", "garden", "workshop")


class EnterForm(forms.Form):
    """A name and a password; the first use of a name creates the user."""

    user: AbstractBaseUser | None = None
    name = forms.SlugField(max_length=30)
    password = forms.CharField(widget=forms.PasswordInput)

    def clean(self) -> None:
        """Find or create the user."""
        name, password = self.cleaned_data.get("name"), self.cleaned_data.get("password")
        if name and password:
            if not User.objects.filter(username=name).exists():
                User.objects.create_user(name, password=password)
            self.user = authenticate(username=name, password=password)
            if self.user is None:
                raise forms.ValidationError("This name has another password.")


def enter(request: HttpRequest) -> HttpResponse:
    """Log in."""
    form = EnterForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        login(request, form.user)
        return redirect("home")
    return render(request, "chat/enter.html", {"form": form})


def home(request: HttpRequest) -> HttpResponse:
    """Go to the first room."""
    return redirect("room", room=ROOMS[0])


@login_required
def room(request: HttpRequest, room: str) -> HttpResponse:
    """Show a room."""
    context = {"room": room, "rooms": ROOMS, "messages": latest(room)}
    return render(request, "chat/room.html", context)
