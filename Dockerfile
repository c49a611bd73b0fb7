# One image per kind of device:  docker build --build-arg EXTRA=cpu --tag fathom:cpu .
#
# EXTRA names extras of pyproject.toml, comma-separated: `cpu`; `gpu` or `gpu-cuda12` (bring the CUDA libraries, so
# that the host needs only the NVIDIA driver and container runtime); add `ray` for a cluster: `cpu,ray`. `plot`
# alone makes the image of the load test, which draws. There is no training in any of them.
#
# The base is pinned; a newer one: docker buildx imagetools inspect python:3.11-slim-bookworm
ARG BASE=docker.io/library/python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${BASE} AS build
ARG EXTRA=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/fathom
ENV PATH=/opt/fathom/bin:$PATH
WORKDIR /src

# Dependencies change seldom and the source often, so that a rebuild mostly costs the layers below.
COPY pyproject.toml constraints*.txt ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
      print(*p['dependencies'], *(r for e in '${EXTRA}'.split(',') for r in p['optional-dependencies'][e]), sep='\n')" \
      > requirements.txt \
 && for extra in $(echo "${EXTRA}" | tr ',' ' '); do \
      if [ -e "constraints-$extra.txt" ]; then cat "constraints-$extra.txt" >> constraints.txt; fi; \
    done \
 && pip install --constraint constraints.txt --requirement requirements.txt

COPY README.md LICENSE fathom.py ./
COPY client client
COPY model model
COPY service service
COPY loadtest loadtest
COPY deploy/ray_app.py deploy/ray_models.py deploy/
# The image has its bundles outside the package. What serves has no use for pip, and neither has whoever
# breaks into it.
RUN mkdir bundles \
 && pip install --no-deps . \
 && cp -r deploy "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
 && pip uninstall --quiet --yes setuptools pip

# The fused kernel, compiled for GPUs of these compute capabilities where the extra brings Triton: `gpu` does.
ARG KERNELS="80 86 89 90 100 120"
COPY bundles/graph/1 graph
RUN mkdir /opt/fathom/kernels \
 && if python -c "import triton" 2>/dev/null; then \
      for arch in ${KERNELS}; do \
        python -m service.runners.fused.compile --arch $arch --out /opt/fathom/kernels graph || exit 1; \
      done; \
    fi


FROM ${BASE}
ARG EXTRA=cpu
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Fathom" \
      org.opencontainers.image.description="Adaptive-depth inference service (${EXTRA})" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11-slim-bookworm"

# A volume mounted on /reports takes over the owner it has here.
RUN groupadd --gid 10001 fathom \
 && useradd --uid 10001 --gid 10001 --home-dir /srv/fathom --no-create-home --shell /usr/sbin/nologin fathom \
 && install --directory --owner 10001 --group 10001 /reports
COPY --from=build /opt/fathom /opt/fathom
COPY deploy/healthcheck.py /srv/fathom/
COPY bundles /srv/fathom/bundles

# The root file system may be read-only: only /tmp is ever written.
ENV PATH=/opt/fathom/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    FATHOM_HOST=0.0.0.0 \
    FATHOM_PORT=8000 \
    FATHOM_KERNELS=/opt/fathom/kernels \
    FATHOM_REPOSITORY=/srv/fathom/bundles
WORKDIR /srv/fathom
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM

HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-S", "/srv/fathom/healthcheck.py"]

# Exec form: SIGTERM reaches the server, which drains and exits with 0.
ENTRYPOINT ["fathom"]
CMD ["serve"]
