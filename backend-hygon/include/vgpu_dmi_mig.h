/*
 * The part of libhydmi_mig's C ABI (hardware instances of HCUs) that vgpu calls, written by us from the facts in the
 * field notes.
 *
 * The library exports nvml* names with structs that are not NVIDIA's. It is only ever opened by handle and RTLD_LOCAL,
 * and these types are this crate's own. Functions are typedefs, never declarations: mig/sys.rs looks each one up by the
 * typedef's name less the suffix "_fn". `cargo xtask bindings` turns this file into src/mig/bindings.rs.
 */
#ifndef VGPU_DMI_MIG_H
#define VGPU_DMI_MIG_H

#define VGPU_HCU_SUCCESS 0u
#define VGPU_HCU_INSUFFICIENT_SIZE 7u

/* Profiles are asked for by slices less one; there is a gap at three slices. */
#define VGPU_HCU_PROFILES 4u
#define VGPU_HCU_ENGINE 0u

typedef unsigned int nvmlReturn_t;

/* Opaque pointers that the library owns. */
typedef struct vgpu_hcu_device_st *nvmlDevice_t;
typedef struct vgpu_hcu_gpu_instance_st *nvmlGpuInstance_t;
typedef struct vgpu_hcu_compute_instance_st *nvmlComputeInstance_t;

typedef struct {
    unsigned int start;
    unsigned int size;
} nvmlPlacement_t;

typedef struct {
    unsigned int id;
    unsigned int gi_count_max;
    unsigned int cu_count;
    unsigned int gpu_slice_count;
    unsigned long long memory_size_MB;
    char name[256];
} nvmlGpuInstanceProfileInfo_t;

typedef struct {
    unsigned int id;
    unsigned int ci_count_max;
    unsigned int cu_count;
    unsigned int gpu_slice_count;
    char name[256];
} nvmlComputeInstanceProfileInfo_t;

typedef struct {
    nvmlDevice_t device;
    unsigned int id;
    unsigned int profile_id;
    nvmlPlacement_t placement;
} nvmlGpuInstanceInfo_t;

typedef struct {
    nvmlDevice_t device;
    nvmlGpuInstance_t gpu_instance;
    unsigned int id;
    unsigned int profile_id;
    nvmlPlacement_t placement;
} nvmlComputeInstanceInfo_t;

typedef nvmlReturn_t nvmlDeviceGetHandleByPciBusId_fn(const char *address, nvmlDevice_t *device);
typedef nvmlReturn_t nvmlGetSystemMigMode_fn(unsigned int *current, unsigned int *pending);
typedef nvmlReturn_t nvmlSetSystemMigMode_fn(unsigned int mode, nvmlReturn_t *status);
typedef nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfo_fn(nvmlDevice_t device, unsigned int profile,
                                                            nvmlGpuInstanceProfileInfo_t *info);
typedef nvmlReturn_t nvmlDeviceGetGpuInstancePossiblePlacements_fn(nvmlDevice_t device, unsigned int id,
                                                                   nvmlPlacement_t *placements, unsigned int *count);
typedef nvmlReturn_t nvmlDeviceCreateGpuInstanceWithPlacement_fn(nvmlDevice_t device, unsigned int id,
                                                                 const nvmlPlacement_t *placement,
                                                                 nvmlGpuInstance_t *gpu_instance);
typedef nvmlReturn_t nvmlDeviceGetGpuInstances_fn(nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *instances,
                                                  unsigned int *count);
typedef nvmlReturn_t nvmlGpuInstanceGetInfo_fn(nvmlGpuInstance_t gpu_instance, nvmlGpuInstanceInfo_t *info);
typedef nvmlReturn_t nvmlGpuInstanceDestroy_fn(nvmlGpuInstance_t gpu_instance);
typedef nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfo_fn(nvmlGpuInstance_t gpu_instance,
                                                                     unsigned int profile, unsigned int engine,
                                                                     nvmlComputeInstanceProfileInfo_t *info);
typedef nvmlReturn_t nvmlGpuInstanceCreateComputeInstance_fn(nvmlGpuInstance_t gpu_instance, unsigned int id,
                                                             nvmlComputeInstance_t *compute_instance);
typedef nvmlReturn_t nvmlGpuInstanceGetComputeInstances_fn(nvmlGpuInstance_t gpu_instance, unsigned int id,
                                                           nvmlComputeInstance_t *instances, unsigned int *count);
typedef nvmlReturn_t nvmlComputeInstanceGetInfo_fn(nvmlComputeInstance_t compute_instance,
                                                   nvmlComputeInstanceInfo_t *info);
typedef nvmlReturn_t nvmlComputeInstanceDestroy_fn(nvmlComputeInstance_t compute_instance);

#endif
