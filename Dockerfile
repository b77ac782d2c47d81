# Keyrack's image: `make image` builds it, deploy/image/README.md says what it promises.
#
# There is no `# syntax=` line and no digest here, because both have to be looked up in a registry
# at every build. To pin the base: --build-arg BASE=python:3.13-slim@sha256:...
ARG BASE=python:3.13-slim

# What Keyrack needs, in a layer that only a change of the locked lists makes anew. Everything comes
# as a wheel, so that no stage needs a compiler. Behind a mirror or a proxy with a certificate of its
# own, a pip.conf and the certificates can be given as secrets; they stay out of the image.
FROM ${BASE} AS dependencies
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv tools && python3 -m venv --without-pip /opt/keyrack
COPY requirements/build.txt requirements/runtime.txt ./
RUN --mount=type=cache,target=/root/.cache/pip,sharing=locked \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.pem \
    tools/bin/pip install --require-hashes --only-binary :all: -r build.txt && \
    tools/bin/pip --python /opt/keyrack/bin/python install \
      --require-hashes --only-binary :all: -r runtime.txt

# Keyrack itself, in a small layer of its own: a change of source builds and ships no more than it.
FROM dependencies AS program
COPY LICENSE README.md pyproject.toml ./
COPY src src
# One run of pip, which finds its tools in the other venv: half as long as a wheel first. The directory
# is where a volume may be mounted; one that Docker makes takes over whose it is.
RUN PYTHONPATH="$(echo tools/lib/python3.*/site-packages)" /opt/keyrack/bin/python -m pip install \
      --no-deps --no-index --no-build-isolation --no-warn-script-location --root /program . && \
    install -d -o 10001 -g 10001 /program/var/lib/keyrack

FROM ${BASE}
COPY --from=dependencies /opt/keyrack /opt/keyrack
COPY --from=program /program /
# In a container, loopback would be nobody's. Which addresses of the host lead here is for the one
# who publishes the port. Everybody is let in, so that a container answers at once, unless a token
# (KEYRACK_TOKEN, KEYRACK_TOKEN_FILE) or a file (KEYRACK_AUTH) is given; the log says so.
ENV PATH=/opt/keyrack/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    KEYRACK_HOST=0.0.0.0 \
    KEYRACK_AUTH=none
WORKDIR /
# A number, because Kubernetes cannot tell from a name that a user is not root.
USER 10001:10001
EXPOSE 8088
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["keyrack", "health"]
ENTRYPOINT ["keyrack"]
CMD ["serve"]

# Last, so that another commit alone builds nothing anew.
ARG VERSION=unknown
ARG COMMIT=unknown
ARG CREATED=unknown
ARG SOURCE=https://github.com/keyrack/keyrack
LABEL org.opencontainers.image.title="Keyrack" \
      org.opencontainers.image.description="An in-memory key-value store that is spoken to with plain HTTP" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.url="${SOURCE}"
