"""What is asked of Sentinel Hub: a token, the catalog, an image. The only place that does.

Credentials and addresses are those of the package sentinelhub: its config.toml with profiles
(``SH_PROFILE``), ``SH_CLIENT_ID`` and ``SH_CLIENT_SECRET``. The profile "cdse" need not be written:
it is the Copernicus Data Space.
Source of the calls: the OpenAPI descriptions of Catalog 1.0.0 and Process, docs.sentinel-hub.com.
"""

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from l1bsr_geo.errors import BadOptionError, DownloadError, L1bsrGeoError, MissingInputError

if TYPE_CHECKING:
    from sentinelhub.config import SHConfig
    from sentinelhub.download.session import SentinelHubSession

CDSE = {
    "sh_base_url": "https://sh.dataspace.copernicus.eu",
    "sh_token_url": "https://identity.dataspace.copernicus.eu/auth/realms/CDSE/protocol/"
    "openid-connect/token",
}
"""The Copernicus Data Space, as sentinelhub's configuration names its addresses."""

LARGEST = 2500
"""Side of the largest image that the process API gives at once [px]."""

_MOST_RETRIES = 10  # of a service that is busy, where its configuration sets no limit
_EXPIRY = 120.0  # [s] a token that ends sooner is renewed
_FIELDS = ["id", "geometry", "properties.datetime", "properties.eo:cloud_cover"]
_EVALSCRIPT = """//VERSION=3
function setup() {
  return {input: [{bands: ["B03", "B04", "dataMask"], units: "DN"}],
          output: {bands: 2, sampleType: "UINT16"}};
}
function evaluatePixel(s) {
  return s.dataMask ? [Math.max(s.B03, 1), Math.max(s.B04, 1)] : [0, 0];
}
"""


def read_config() -> "SHConfig":
    """What the package sentinelhub is configured with.

    Raises:
        MissingInputError: it is not installed.
        BadOptionError: no such profile, or no credentials.
    """
    try:
        from sentinelhub.config import DEFAULT_PROFILE, SHConfig
    except ImportError:
        raise MissingInputError(
            "--refine sentinelhub needs the package sentinelhub; "
            "pip install 'l1bsr-geo[sentinelhub]'"
        ) from None
    where = SHConfig.get_config_location()
    profile = os.environ.get("SH_PROFILE", DEFAULT_PROFILE)
    preset = CDSE if profile == "cdse" else {}
    try:
        config = SHConfig()
    except KeyError:
        if not preset:
            raise BadOptionError(
                f"SH_PROFILE={profile}: {where} has no such profile; write it there, or take cdse, "
                "the Copernicus Data Space"
            ) from None
        config = SHConfig(use_defaults=True)
        config.sh_client_id = os.environ.get("SH_CLIENT_ID", "")
        config.sh_client_secret = os.environ.get("SH_CLIENT_SECRET", "")
    except (TypeError, ValueError) as error:
        raise BadOptionError(f"{where}: {error}; mend it") from None
    defaults = SHConfig(use_defaults=True)
    for name, address in preset.items():
        if getattr(config, name) == getattr(defaults, name):
            setattr(config, name, address)
    if not (config.sh_client_id and config.sh_client_secret):
        raise BadOptionError(
            "--refine sentinelhub needs credentials: set SH_CLIENT_ID and SH_CLIENT_SECRET (and "
            f"SH_PROFILE=cdse for the Copernicus Data Space), or write them to {where}"
        )
    if config.max_retries is None:
        config.max_retries = _MOST_RETRIES
    return config


class Service:
    """One log-in, and what is asked with it.

    Its methods raise BadOptionError where the service refuses the credentials, and DownloadError
    where it cannot be reached, is too busy, or answers something else.
    """

    def __init__(self, config: "SHConfig") -> None:
        self.config = config
        self._session: SentinelHubSession | None = None

    def search(
        self,
        collection: str,
        bounds: tuple[float, float, float, float],
        begin: datetime,
        end: datetime,
    ) -> list[dict[str, Any]]:
        """STAC items of a collection, from all pages, with ``_FIELDS`` alone.

        Args:
            collection: id in the catalog.
            bounds: west, south, east, north [degrees].
            begin: with a time zone.
            end: with a time zone.
        """
        with self._plain_errors():
            from sentinelhub.api.catalog import SentinelHubCatalog
            from sentinelhub.constants import CRS
            from sentinelhub.geometry import BBox

            catalog = SentinelHubCatalog(config=self.config)
            catalog.client.session = self._log_in()
            found = catalog.search(
                collection,
                bbox=BBox(bounds, CRS.WGS84),
                time=(_naive(begin), _naive(end)),
                fields={"include": _FIELDS, "exclude": []},
            )
            return list(found)

    def draw(
        self,
        collection: str,
        day: date,
        box: tuple[float, float, float, float],
        size: tuple[int, int],
        crs: str,
    ) -> bytes:
        """B03 and B04 of a day as GeoTIFF: uint16 DN, 0 where there is nothing.

        Args:
            collection: id in the catalog.
            day: UTC.
            box: left, bottom, right, top [m].
            size: width, height [px], ``LARGEST`` at most.
            crs: of the box, such as "EPSG:32631".
        """
        begin = datetime(day.year, day.month, day.day)
        times = (begin, begin + timedelta(days=1, seconds=-1))
        with self._plain_errors():
            from sentinelhub.api.process import SentinelHubRequest
            from sentinelhub.constants import CRS, MimeType, MosaickingOrder, ResamplingType
            from sentinelhub.data_collections import DataCollection
            from sentinelhub.download.sentinelhub_client import SentinelHubDownloadClient
            from sentinelhub.geometry import BBox

            data = SentinelHubRequest.input_data(
                DataCollection[collection.upper().replace("SENTINEL-2-", "SENTINEL2_")],
                time_interval=times,
                mosaicking_order=MosaickingOrder.LEAST_CC,
                upsampling=ResamplingType.BICUBIC,
                downsampling=ResamplingType.BICUBIC,
            )
            request = SentinelHubRequest(
                evalscript=_EVALSCRIPT,
                input_data=[dict(data)],  # without the address that the collection insists on
                responses=[SentinelHubRequest.output_response("default", MimeType.TIFF)],
                bbox=BBox(box, CRS(crs.removeprefix("EPSG:"))),
                size=size,
                config=self.config,
            )
            client = SentinelHubDownloadClient(session=self._log_in(), config=self.config)
            answers = client.download(request.download_list, decode_data=False)
            return bytes(answers[0].content)

    def _log_in(self) -> "SentinelHubSession":
        """A session whose token lasts for the next request.

        sentinelhub itself would wait for a token without end.
        """
        from sentinelhub.download.handlers import fail_user_errors, retry_temporary_errors
        from sentinelhub.download.models import DownloadRequest
        from sentinelhub.download.session import SentinelHubSession

        if self._session is None or self._session.token["expires_at"] < time.time() + _EXPIRY:
            ask = retry_temporary_errors(fail_user_errors(_ask_for_token))
            request = DownloadRequest(url=self.config.sh_token_url)
            self._session = SentinelHubSession.from_token(
                ask(SimpleNamespace(config=self.config), request)
            )
        return self._session

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """What sentinelhub raises, as one line of ours; its retries follow its configuration."""
        import requests
        from sentinelhub.exceptions import (
            BaseSentinelHubException,
            OutOfRequestsException,
            SHRateLimitWarning,
        )

        where = urlsplit(self.config.sh_base_url).netloc
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SHRateLimitWarning)  # it waits, that is all
                yield
        except L1bsrGeoError:
            raise
        except OutOfRequestsException:
            raise DownloadError(
                f"{where}: the service is busy: it put off {self.config.max_retries} requests "
                "(429 Too Many Requests); try again later, or look at your account's quota"
            ) from None
        except (KeyError, TypeError, ValueError) as error:  # that JSON is none is a ValueError
            raise DownloadError(
                f"{where}: an answer that is not understood ({type(error).__name__}: {error}); is "
                "sh_base_url that of a Sentinel Hub?"
            ) from None
        except (BaseSentinelHubException, requests.RequestException) as error:
            raise _say_failure(where, error) from None


def _naive(time: datetime) -> datetime:
    """A time as sentinelhub takes it: UTC that does not say so."""
    return time.astimezone(UTC).replace(tzinfo=None)


def _ask_for_token(client: Any, request: Any) -> dict[str, Any]:
    """OAuth 2.0 client credentials, RFC 6749 section 4.4."""
    import requests

    config, url = client.config, urlsplit(request.url)
    if url.scheme != "https" and url.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise BadOptionError(
            f"sh_token_url {request.url}: credentials are sent over https only; mend the address"
        )
    answer = requests.post(
        request.url,
        data={
            "grant_type": "client_credentials",
            "client_id": config.sh_client_id,
            "client_secret": config.sh_client_secret,
        },
        timeout=config.download_timeout_seconds,
    )
    answer.raise_for_status()
    token = answer.json()
    return {**token, "expires_at": time.time() + float(token["expires_in"])}


def _say_failure(where: str, error: Exception) -> BadOptionError | DownloadError:
    """One line about a request that failed for good."""
    from sentinelhub.decoding import decode_sentinelhub_err_msg

    cause = getattr(error, "request_exception", None) or error
    response = getattr(cause, "response", None)
    if response is None:
        reason = " ".join(str(cause).split())
        return DownloadError(f"{where}: cannot be reached ({reason}); try again later")
    said = " ".join(decode_sentinelhub_err_msg(response).split()) or response.reason
    status = f"{response.status_code} {response.reason}"
    if response.status_code in (401, 403):
        return BadOptionError(
            f"{where}: refuses the credentials ({status}: {said}); look at SH_CLIENT_ID, "
            "SH_CLIENT_SECRET and SH_PROFILE"
        )
    return DownloadError(f"{where}: the request failed ({status}: {said}); try again later")
