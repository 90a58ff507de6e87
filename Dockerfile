# The image of glancing. The classic builder can build it, and any base with Python 3.11 or newer
# and its venv module will do:
#   docker build -t glancing .
#   docker build -t glancing --build-arg BASE_IMAGE=registry.example.org/python:3.13 .
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# pip stays in this stage: the environment that is shipped has none.
RUN ["python3", "-m", "venv", "tools"]
RUN ["python3", "-m", "venv", "--without-pip", "/opt/glancing"]

COPY requirements.txt .ci/build-requirements.txt ./
RUN ["tools/bin/python", "-m", "pip", "install", "--require-hashes", "--only-binary", ":all:", \
     "-r", "build-requirements.txt"]
RUN ["tools/bin/python", "-m", "pip", "--python", "/opt/glancing/bin/python", "install", \
     "--no-compile", "--require-hashes", "--only-binary", ":all:", "-r", "requirements.txt"]

COPY pyproject.toml README.md LICENSE ./
COPY glancing glancing
RUN ["tools/bin/python", "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", \
     "--wheel-dir", "dist", "."]
RUN ["tools/bin/python", "-m", "pip", "--python", "/opt/glancing/bin/python", "install", \
     "--no-compile", "--no-deps", "--no-index", "--find-links", "dist", "glancing"]

# A read-only root file system can keep no bytecode, so it is made here, and never looked up again.
RUN ["/opt/glancing/bin/python", "-m", "compileall", "-q", "-j", "0", \
     "--invalidation-mode", "unchecked-hash", "/opt/glancing/lib"]


FROM ${BASE_IMAGE}

# Verifies what old OpenPGP keys have signed; bases that are not of Debian bring it along or go
# without. openssl, for S/MIME, is there wherever ca-certificates is.
RUN ["/bin/sh", "-c", "command -v gpgv || ! command -v apt-get || { apt-get update && \
     apt-get install -y --no-install-recommends gpgv && rm -rf /var/lib/apt/lists/*; }"]

COPY --from=builder /opt/glancing /opt/glancing

# Proves that everything is there, and makes the bytecode of those modules of Python itself that
# are used, where the base has none.
RUN ["/opt/glancing/bin/python", "-c", \
     "import glancing.__main__, glancing.wiring, glancing.glance, rich.console, rich.table"]

# A named volume takes over who may write to it: the user below, and group 0 for user ids that a
# platform assigns. Nothing is written to them unless a variable or a flag asks for it.
RUN ["/opt/glancing/bin/python", "-c", \
     "import os; [(os.mkdir(d), os.chown(d, 65532, 0), os.chmod(d, 0o775)) for d in ('/work', '/backups')]"]

ENV PATH=/opt/glancing/bin:${PATH} HOME=/nonexistent \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

# Numbers, so that Kubernetes can tell that it is not root. Any other will do as well.
USER 65532:65532
WORKDIR /
ENTRYPOINT ["glancing"]
CMD ["sync"]

ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=https://example.org/glancing
LABEL org.opencontainers.image.title="glancing" \
      org.opencontainers.image.description="Keep an OpenStack Glance catalogue equal to published VM image lists, verified byte for byte" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
