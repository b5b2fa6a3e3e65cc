# docker build -t endoclip_jax .                            CPU
# docker build -t endoclip_jax --build-arg JAX=cuda13 .     GPU (or: tpu)
# docker run --network=none -v DATA:/data -v RUNS:/runs endoclip_jax \
#   python launch/main.py --config=configs/pipeline.py --config.data.shards=/data/shards --workdir=/runs/real
# The network is needed to build, not to run.
FROM python:3.11-slim

ARG JAX=""
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 HF_HUB_OFFLINE=1

WORKDIR /opt/endoclip_jax
COPY constraints.txt setup.py pyproject.toml README.md ./
COPY third_party third_party
COPY configs configs
COPY endoclip_jax endoclip_jax
COPY launch launch
RUN pip install --constraint constraints.txt --editable . \
    && if [ -n "$JAX" ]; then pip install --constraint constraints.txt "jax[$JAX]"; fi

CMD ["python", "launch/main.py", "--help"]
