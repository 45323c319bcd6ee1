# syntax=docker/dockerfile:1.7
# The code location, and runs that need neither a GPU nor PyTorch: evaluations by endpoints, warehouse, results, report.
# From the root of the checkout:
#   docker build -f deploy/images/code.Dockerfile -t REGISTRY/safety-frontier:0.1.0 \
#     --build-arg FRONTIER_COMMIT=$(git rev-parse HEAD) .
# The base image is named by its digest. For another one: --build-arg BASE=IMAGE@sha256:…
ARG BASE=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d
FROM ${BASE}

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /opt/frontier

# Dependencies first: they change less often than the code does.
# Every file that is installed has a hash in the lock (`make lock`); pip refuses any other, and any that is not listed.
COPY deploy/images/code.lock requirements.lock
RUN pip install --require-hashes --requirement requirements.lock
COPY pyproject.toml setup.py README.md LICENSE ./
RUN mkdir toolemu dagster_project && touch toolemu/__init__.py dagster_project/__init__.py \
    && pip install --no-deps --no-build-isolation --editable .

COPY toolemu toolemu
COPY dagster_project dagster_project
COPY assets_data assets_data
COPY deploy/dagster-postgresql.yaml deploy/dagster-postgresql.yaml
COPY dagster.yaml workspace.yaml ./
RUN python -m compileall -q toolemu dagster_project

# Manifests say which commit made them; there is no checkout here to ask.
ARG FRONTIER_COMMIT=""
ENV FRONTIER_COMMIT=$FRONTIER_COMMIT \
    FRONTIER_CACHE=/var/cache/frontier \
    DAGSTER_HOME=/opt/dagster/dagster_home \
    HOME=/home/frontier \
    MPLCONFIGDIR=/tmp/matplotlib
RUN useradd --uid 10001 --create-home --home-dir /home/frontier frontier \
    && mkdir -p $FRONTIER_CACHE $DAGSTER_HOME /var/lib/frontier \
    && chown 10001:10001 $FRONTIER_CACHE $DAGSTER_HOME /var/lib/frontier
USER 10001:10001
CMD ["dagster", "api", "grpc", "--host", "0.0.0.0", "--port", "3030", "--module-name", "dagster_project.definitions", "--attribute", "experiment"]
