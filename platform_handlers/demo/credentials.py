"""The demo's made-up credentials. They open nothing; the leak tests look for them everywhere."""

import json

_FILLER = "made-up-for-the-byok-demo-"

API_KEY = f"sk-ant-api03-{_FILLER}shared-by-two-servers-0001"
NEXT_API_KEY = f"sk-ant-api03-{_FILLER}after-the-rotation-0002"
ACCESS_TOKEN = f"sk-ant-oat01-{_FILLER}access-token-of-one-login-used-twice-0003"
REFRESH_TOKEN = f"sk-ant-ort01-{_FILLER}refresh-token-of-one-login-used-twice-0004"

ALL = (API_KEY, NEXT_API_KEY, ACCESS_TOKEN, REFRESH_TOKEN)


def sign_in(provider_url: str) -> str:
    """Return the JSON of one OAuth sign-in, as `byok key set --kind oauth` reads it.

    Its token endpoint is at *provider_url*; without an end it is never refreshed of itself.

    Its account is an email address, which is guessable: it matches nothing across owners, so the
    amber banner comes from the grant alone.
    """
    return json.dumps(
        {
            "access_token": ACCESS_TOKEN,
            "refresh_token": REFRESH_TOKEN,
            "token_endpoint": f"{provider_url}/oauth/token",
            "client_id": "byok-demo",
            "issuer": "https://console.anthropic.com",
            "account": "ann@example.com",
        }
    )
