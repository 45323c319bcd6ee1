# syntax=docker/dockerfile:1.7
# Work on a GPU: training, merging, and agents in process; with Dagster's UI, for one host (deploy/compose). CUDA comes with
# the wheels of PyTorch and vLLM, the driver with the node (NVIDIA's container toolkit). Servers of models have vLLM's own
# image, see deploy/kubernetes.
# From the root of the checkout:
#   docker build -f deploy/images/gpu.Dockerfile -t REGISTRY/safety-frontier-gpu:0.1.0 \
#     --build-arg FRONTIER_COMMIT=$(git rev-parse HEAD) .
# The base image is named by its digest. For another one: --build-arg BASE=IMAGE@sha256:…
ARG BASE=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d
FROM ${BASE}

# Triton compiles its kernels with a C compiler when they are first used.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /opt/frontier

# Every file that is installed has a hash in the lock (`make lock`); pip refuses any other, and any that is not listed.
COPY deploy/images/gpu.lock requirements.lock
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

ARG FRONTIER_COMMIT=""
ENV FRONTIER_COMMIT=$FRONTIER_COMMIT \
    FRONTIER_CACHE=/var/cache/frontier \
    DAGSTER_HOME=/opt/dagster/dagster_home \
    HOME=/home/frontier \
    HF_HOME=/var/cache/frontier/huggingface \
    TRITON_CACHE_DIR=/tmp/triton \
    MPLCONFIGDIR=/tmp/matplotlib \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN useradd --uid 10001 --create-home --home-dir /home/frontier frontier \
    && mkdir -p $FRONTIER_CACHE $DAGSTER_HOME /var/lib/frontier \
    && chown 10001:10001 $FRONTIER_CACHE $DAGSTER_HOME /var/lib/frontier
USER 10001:10001
CMD ["dagster", "api", "grpc", "--host", "0.0.0.0", "--port", "3030", "--module-name", "dagster_project.definitions", "--attribute", "experiment"]
