# One image for GPU, TPU or CPU machines; built from the checkout:
#   docker build --build-arg ACCELERATOR=tpu --tag scaling_jax:tpu .
ARG PYTHON=3.12
FROM python:${PYTHON}-slim-bookworm

# gpu: the wheels bring CUDA, the machine has the driver. tpu: libtpu. cpu: neither.
ARG ACCELERATOR=cpu
# Extras beside it. Add tasks (TensorFlow, 2.5 GB more) to prepare stores in the image; training needs none of it.
ARG EXTRAS=text,scores,judge

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

WORKDIR /opt/scaling_jax

# What decides which packages are installed, first: a change of the code then installs nothing again.
COPY setup.py pyproject.toml constraints.txt ./
COPY scaling_jax/__init__.py scaling_jax/
COPY gin_configs gin_configs
RUN case "$ACCELERATOR" in \
      gpu | tpu) extras="$ACCELERATOR,$EXTRAS" ;; \
      cpu) extras="$EXTRAS" ;; \
      *) echo "ACCELERATOR is gpu, tpu or cpu, not $ACCELERATOR" >&2; exit 2 ;; \
    esac \
    && pip install -e ".[$extras]" -c constraints.txt

COPY . .
RUN scaling-jax --version

CMD ["scaling-jax", "--help"]
