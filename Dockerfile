# easycap with most extras. From the package index torch comes with CUDA (about 9 GB; run with --gpus all):
#   docker build -t easycap .
# For the CPU build of torch (about 3 GB), name the index that pytorch.org gives for it:
#   docker build -t easycap --build-arg TORCH_INDEX=URL .
# Runs, data and cache lie in the current folder:
#   docker run --rm -it --shm-size=1g -v "$PWD:/workspace" easycap train experiment=easycap/quickstart
FROM python:3.11-slim

ARG TORCH_INDEX=

# Java is for METEOR and SPICE.
RUN apt-get update \
    && apt-get install -y --no-install-recommends default-jre-headless \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/easycap
COPY constraints.txt setup.py setup.cfg pyproject.toml README.md LICENSE ./
COPY conf conf
COPY easycap easycap
COPY experiments experiments
RUN grep -E "^(torch|torchvision)==" constraints.txt > torch.txt \
    && pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -r torch.txt \
    && pip install --no-cache-dir -c constraints.txt ".[wandb,tensorboard,meteor,tags,hdf5,parquet,huggingface,lora,optuna,webdataset,chinese,japanese]"

ENV EASYCAP_OUTPUTS=/workspace/outputs EASYCAP_CACHE=/workspace/.cache/easycap
WORKDIR /workspace
ENTRYPOINT ["easycap"]
CMD ["--help"]
