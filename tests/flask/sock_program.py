# mypy: ignore-errors
"""A program for Flask-Sock; the test also runs it with the import of wsframe.flask."""

import queue

from flask import Blueprint, Flask, current_app, g, request, session, url_for
from flask_sock import ConnectionClosed, Sock

application = Flask(__name__)
application.secret_key = "secret"
application.config["SOCK_SERVER_OPTIONS"] = {"subprotocols": ["b", "a"], "ping_interval": 25}
sock = Sock()
ends: "queue.Queue[tuple[int, str | None]]" = queue.Queue()
pages = Blueprint("pages", __name__, url_prefix="/pages")


@application.before_request
def load():
    g.user = "user"


@application.get("/login/<name>")
def login(name):
    session["name"] = name
    return name


@application.get("/end")
def end():
    reason, message = ends.get(timeout=10)
    return f"{int(reason)} {message!r}"


@sock.route("/echo")
def echo(ws):
    while True:
        ws.send(ws.receive())


@sock.route("/count/<int:to>")
def count(ws, to):
    for number in range(to):
        ws.send(number)


@sock.route("/timeout")
def timeout(ws):
    ws.send([ws.receive(timeout=0), ws.receive(timeout=0.01)])
    ws.send(ws.receive(timeout=10))


@sock.route("/close")
def close(ws):
    ws.close(4000, "so long")
    answers = [str(ws.connected)]
    for call in (lambda: ws.send("late"), lambda: ws.close()):
        try:
            call()
        except ConnectionClosed:
            answers.append("closed")
    ends.put((0, " ".join(answers)))


@sock.route("/wait")
def wait(ws):
    ws.send(f"connected {ws.connected}")
    try:
        ws.receive()
    except ConnectionClosed as closed:
        ends.put((closed.reason, closed.message))
        assert not ws.connected
        raise


@sock.route("/contexts")
def contexts(ws):
    session["changed"] = "changed"
    g.count = 0
    while True:
        ws.receive()
        g.count += 1
        here = [
            request.path,
            request.args["q"],
            session["name"],
            session["changed"],
            g.user,
            g.count,
        ]
        where = [url_for("pages.page", name="n"), url_for("__flask_sock.echo", _external=False)]
        ws.send([*here, *where, current_app.name, ws.environ["PATH_INFO"], ws.subprotocol])


@sock.route("/<name>", bp=pages)
def page(ws, name):
    ws.send(name)


sock.init_app(application)
application.register_blueprint(pages)
