"""A language model that answers a question: behind an OpenAI-compatible address, or on this machine (transformers)."""

import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any
from urllib.parse import urldefrag, urlsplit

import torch

from utils.text import shown

logger = logging.getLogger(__name__)

Answer = Callable[[str], str | None]  # a question -> what the model says; None: it declined, or said nothing
TRIES = 4  # of a request that the server could not answer now
WAIT_S = 1.0  # after the first of them; twice as long after each further one
BUSY = (408, 425, 429, 500, 502, 503, 504, 529)  # HTTP status codes after which another try may help
MAX_BYTES = 2**22  # of a server's answer
MAX_TOKENS = 1024  # of a local model's answer
SCHEMES = ("http://", "https://")


def open_model(model: str, api_key_env: str, timeout_s: float) -> Answer:
    """The model of that name.

    Args:
        model: ``http://host:port/v1``, with ``#NAME`` where the server has several models; else a model of
            transformers, by name or folder.
        api_key_env: the environment variable with the server's key; empty: it asks for none.
        timeout_s: how long a server may be silent.

    Raises:
        ValueError, OSError: one line: there is no such model, key or server, or a package is missing.
    """
    if model.lower().startswith(SCHEMES):
        return Server(model, api_key_env, timeout_s)
    if "://" in model:
        raise ValueError(f"--model: expected an address that begins with http:// or https://, found {shown(model)}")
    if api_key_env:
        raise ValueError(f"--api_key_env is for an address, and --model {shown(model)} is none")
    return LocalModel(model)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: the key would be sent to wherever it leads."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class Server:
    """A model behind an OpenAI-compatible address."""

    def __init__(self, address: str, api_key_env: str, timeout_s: float):
        address, self.name = urldefrag(address)
        self.address, self.timeout_s = address.rstrip("/"), timeout_s
        if not _is_address(self.address):
            raise ValueError(f"--model: expected an address such as http://localhost:8000/v1, found {shown(address)}")
        self.headers = {"Content-Type": "application/json"}
        if api_key_env:
            self.headers["Authorization"] = f"Bearer {_key(api_key_env)}"
        self._opener = urllib.request.build_opener(_NoRedirects)
        self.name = self.name or self._only_model()

    def __call__(self, question: str) -> str | None:
        """What the model says.

        Raises:
            OSError: the server fails, after a few tries, or refuses.
            ValueError: it does not answer as such a server does.
        """
        content = {"model": self.name, "messages": [{"role": "user", "content": question}]}
        tree = self._ask("/chat/completions", content)
        try:
            answer = tree["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            answer = tree
        if not isinstance(answer, str | None):
            raise ValueError(
                f"{self.address}/chat/completions: expected choices with a message's content, found {shown(tree)}"
            )
        return answer

    def _only_model(self) -> str:
        tree = self._ask("/models")
        try:
            names = [model["id"] for model in tree["data"]]
        except (KeyError, TypeError):
            names = []
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{self.address}/models: expected a list of models with ids, found {shown(tree)}")
        if len(names) > 1:
            raise ValueError(
                f"--model {self.address}: it has {len(names)} models, say which as {self.address}#NAME: {shown(names)}"
            )
        return names[0]

    def _ask(self, path: str, content: dict[str, Any] | None = None) -> Any:
        """The JSON that the server answers with, asked again where it is busy or gone for a moment."""
        url = self.address + path
        data = None if content is None else json.dumps(content).encode()
        for number in range(1, TRIES + 1):
            try:
                with self._opener.open(urllib.request.Request(url, data, self.headers), timeout=self.timeout_s) as file:
                    text = file.read(MAX_BYTES + 1)
                break
            except urllib.error.HTTPError as error:
                reason, is_passing = f"HTTP {error.code}{_said(error)}", error.code in BUSY
            except (OSError, http.client.HTTPException) as error:
                cause = getattr(error, "reason", error)
                reason = " ".join(f"{getattr(cause, 'strerror', '') or cause or type(error).__name__}".split())
                is_passing = True
            if number == TRIES or not is_passing:
                raise OSError(f"{url}: {reason}" + (f" (tried {number} times)" if number > 1 else ""))
            logger.warning("%s: %s, trying again", url, reason)
            time.sleep(WAIT_S * 2 ** (number - 1))
        try:
            if len(text) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} bytes")
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{url}: expected JSON, found {shown(text)} ({error})") from None


def _is_address(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and parts.port != 0 and address.isascii() and not set(address) & set(" \t\r\n?")
    except ValueError:  # a port that is no number
        return False


def _key(name: str) -> str:
    """The key in an environment variable; no message ever says it."""
    key = os.environ.get(name, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        found = "one with other characters" if key else "nothing"
        raise ValueError(f"--api_key_env: expected a key in the environment variable {shown(name)}, found {found}")
    return key


def _said(error: urllib.error.HTTPError) -> str:
    """What a server adds to a status code: the beginning, in one line."""
    try:
        text = error.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""
    return f" {shown(' '.join(text.split()))}" if text.strip() else ""


class LocalModel:
    """A causal model of transformers, on the GPU if there is one."""

    def __init__(self, name: str):
        if find_spec("transformers") is None:
            raise ValueError(
                f"--model {shown(name)}: a model on this machine needs transformers, not installed: "
                "pip install transformers (or give an address, http://...)"
            )
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name)
            self.model = AutoModelForCausalLM.from_pretrained(name, torch_dtype="auto").eval()
        except (OSError, ValueError, ImportError) as error:
            raise ValueError(f"--model {shown(name)}: {' '.join(str(error).split())}") from None
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")

    @torch.inference_mode()
    def __call__(self, question: str) -> str:
        """What the model says, the most probable words."""
        text = question
        if self.tokenizer.chat_template:
            chat = [{"role": "user", "content": question}]
            text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        # A template has the marks of beginning and end in it.
        tokens = self.tokenizer(text, return_tensors="pt", add_special_tokens=not self.tokenizer.chat_template)
        tokens = tokens.to(self.model.device)
        answer = self.model.generate(**tokens, max_new_tokens=MAX_TOKENS, do_sample=False)
        return self.tokenizer.decode(answer[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True)
