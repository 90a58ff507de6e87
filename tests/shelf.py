"""Looks into the sandbox's Glance from outside, and puts images there that others have made."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from tests.sandbox import Sandbox
from tests.sandbox.identity import Login

Image = dict[str, Any]
PATCH_TYPE = "application/openstack-images-v2.1-json-patch"


class Shelf:
    """The images of the sandbox's member, as Glance itself tells of them."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.login = Login(sandbox.member)
        self.project_id: str = self.login.token["project"]["id"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.login.__exit__(kind, error, trace)

    # --- looking ---

    def all(self) -> list[Image]:
        """Every image of the member's project, hidden ones too."""
        found: list[Image] = []
        for hidden in ("false", "true"):
            query = {"owner": self.project_id, "os_hidden": hidden, "limit": "1000"}
            found += self.call("GET", "", params={**query, "visibility": "all"}).json()["images"]
        return found

    def names(self) -> list[str]:
        """All names, each as often as it is borne."""
        return sorted(image["name"] for image in self.all())

    def named(self, name: str) -> Image:
        """The one image of a name."""
        (image,) = (image for image in self.all() if image["name"] == name)
        return image

    def get(self, image_id: str) -> Image:
        """One image by its id."""
        image: Image = self.call("GET", f"/{image_id}").json()
        return image

    def data(self, name: str) -> bytes:
        """The bytes of the one image of a name."""
        content: bytes = self.call("GET", f"/{self.named(name)['id']}/file").content
        return content

    def incoming(self) -> list[Image]:
        """Images that were begun and not finished; a run must not leave any."""
        return [
            image
            for image in self.all()
            if image.get("glancing_state") == "incoming"
            or image["name"].endswith(".incoming")
            or image["status"] not in ("active", "deactivated")
        ]

    def members(self, name: str) -> list[str]:
        """The projects that an image is shared with."""
        answer = self.call("GET", f"/{self.named(name)['id']}/members").json()
        return [member["member_id"] for member in answer["members"]]

    # --- setting the scene ---

    def put(self, name: str, data: bytes, **fields: object) -> Image:
        """Make an active image as another tool would."""
        made = self.record(name, **fields)
        octets = {"Content-Type": "application/octet-stream"}
        self.call("PUT", f"/{made['id']}/file", data=data, headers=octets)
        return self.get(made["id"])

    def record(self, name: str, **fields: object) -> Image:
        """Make the record of an image that has no data yet."""
        values = {"disk_format": "raw", "container_format": "bare", **fields}
        made: Image = self.call("POST", "", json={"name": name, **values}).json()
        return made

    def change(self, image: Image, **fields: object) -> None:
        """Change fields or properties by hand, as an administrator would."""
        operations = [
            {"op": "add", "path": f"/{key}", "value": value} for key, value in fields.items()
        ]
        self.call("PATCH", f"/{image['id']}", json=operations, headers={"Content-Type": PATCH_TYPE})

    def delete(self, image: Image) -> None:
        """Delete an image."""
        self.call("DELETE", f"/{image['id']}")

    def share(self, image: Image, project_id: str) -> None:
        """Share an image with another project."""
        self.call("POST", f"/{image['id']}/members", json={"member": project_id})

    def deactivate(self, image: Image) -> None:
        """Deactivate an image, which only an administrator may."""
        with Login(self.sandbox.admin) as admin:
            url = f"{self.sandbox.image_url}/v2/images/{image['id']}/actions/deactivate"
            admin.call("POST", url)

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """One request of the member to the image service."""
        return self.login.call(method, f"{self.sandbox.image_url}/v2/images{path}", **arguments)
