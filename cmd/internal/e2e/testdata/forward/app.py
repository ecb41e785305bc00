"""An application with session login, in one file. Rejoin asks it at /rejoin.

    python3 app.py DIRECTORY PORT REJOIN_URL
"""
import sys

import django
from django.conf import settings
from django.core.management import call_command

directory, port, rejoin = sys.argv[1:]

PAGE = """<!doctype html><title>feed</title>
<p id="user">{{ user.username }}</p><p id="state">connecting</p><ul id="events"></ul>
<script>
const feed = "user:{{ user.username }}", at = localStorage.getItem(feed) ?? "0"
const source = new EventSource(`{{ rejoin }}/v1/feeds/${feed}/events?lastEventId=${at}`, {withCredentials: true})
const show = state => document.getElementById("state").textContent = state
source.addEventListener("feed.open", () => show("open"))
source.addEventListener("feed.expired", e => show(JSON.parse(e.data).reason))
source.onerror = () => { if (source.readyState === EventSource.CLOSED) show("closed") }
source.onmessage = e => {
  localStorage.setItem(feed, e.lastEventId)
  document.getElementById("events").append(Object.assign(document.createElement("li"), {id: "e" + e.lastEventId, textContent: e.data}))
}
</script>"""

LOGIN = """<!doctype html><title>login</title><form method="post">{% csrf_token %}
<input name="username"><input name="password" type="password"><button>login</button></form>"""

settings.configure(
    SECRET_KEY="only for this test" * 3,
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": directory + "/app.db"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],  # a slow one would only slow the test down
    LOGIN_REDIRECT_URL="/",
    TEMPLATES=[{
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "loaders": [("django.template.loaders.locmem.Loader", {"page.html": PAGE, "registration/login.html": LOGIN})],
            "context_processors": ["django.template.context_processors.request", "django.contrib.auth.context_processors.auth"],
        },
    }],
)
django.setup()

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import path


# The example of docs/auth.md.
def may(request):
    if not request.user.is_authenticated:
        return HttpResponse(status=401)
    own = f"user:{request.user.username}"
    feeds = request.headers.get("Rejoin-Feeds", "").split(",")
    allowed = request.headers["Rejoin-Action"] == "subscribe" and all(feed == own for feed in feeds)
    return HttpResponse(status=204 if allowed else 403)


def rejoin_may(request):
    # The application's own backend publishes with a token.
    if request.headers.get("Authorization") == "Bearer backend":
        return HttpResponse(status=204)
    return may(request)


urlpatterns = [
    path("", login_required(lambda request: render(request, "page.html", {"rejoin": rejoin}), login_url="/login")),
    path("login", LoginView.as_view()),
    path("logout", LogoutView.as_view(next_page="/login")),
    path("rejoin", rejoin_may),
]

call_command("migrate", verbosity=0)
for name in ["alice", "bob"]:
    User.objects.create_user(name, password="secret")
call_command("runserver", f"127.0.0.1:{port}", use_reloader=False)
