/*
 * The part of NVML's C ABI that vgpu calls without nvml-wrapper, written by us from the facts in the field notes
 * (names, numbers, layouts): what nvml-wrapper 0.13 gets wrong, leaves out, or reads without a bound.
 *
 * - Events: the wrapper drops the GPU and compute instance ids, truncates event types it does not know, and its
 *   event set panics on drop where nvmlEventSetFree is missing.
 * - Strings and PCI records: the wrapper reads up to a NUL that a broken library may not have written.
 * - Process lists: the wrapper allocates as many entries as the library says there are.
 * - What an NVLink ends at: the wrapper's remote_device_type writes the answer into a temporary and always says Unknown.
 * - Remapped rows and the first version of the memory call: not wrapped.
 * - Memory limits of cgroups (r615): newer than the wrapper.
 *
 * Functions are typedefs, never declarations, so that nothing links to the library: sys.rs looks each one up by the
 * typedef's name less the suffix "_fn". `cargo xtask bindings` turns this file into src/bindings.rs.
 * - MIG instances: the wrapper makes and lists none, and its list of placements is always empty.
 */
#ifndef VGPU_NVML_H
#define VGPU_NVML_H

/* Return codes that this crate tells apart; any other number is kept as it is. */
#define VGPU_NVML_SUCCESS 0u
#define VGPU_NVML_ERROR_INVALID_ARGUMENT 2u
#define VGPU_NVML_ERROR_NOT_SUPPORTED 3u
#define VGPU_NVML_ERROR_NOT_FOUND 6u
#define VGPU_NVML_ERROR_INSUFFICIENT_SIZE 7u
#define VGPU_NVML_ERROR_TIMEOUT 10u
#define VGPU_NVML_ERROR_FUNCTION_NOT_FOUND 13u
#define VGPU_NVML_ERROR_GPU_IS_LOST 15u
#define VGPU_NVML_ERROR_ARGUMENT_VERSION_MISMATCH 25u

/* Buffer sizes in bytes, NUL included: the larger where two versions of a call differ. */
#define VGPU_NVML_DRIVER_VERSION_SIZE 80u
#define VGPU_NVML_NAME_SIZE 96u
#define VGPU_NVML_UUID_SIZE 96u

/* The layout of a profile's second version: its size, and 2 in the top byte. */
#define VGPU_NVML_GPU_INSTANCE_PROFILE_V2 (152u | 2u << 24)

/* The engine profile in which compute instances share all engines of their GPU instance. */
#define VGPU_NVML_ENGINES_SHARED 0u

/* What an instance id says where there is no instance. (A size that the driver may not tell is all ones, 64 bits.) */
#define VGPU_NVML_NO_INSTANCE 0xFFFFFFFFu

/* How a field's value is to be read. */
#define VGPU_NVML_VALUE_DOUBLE 0u
#define VGPU_NVML_VALUE_UNSIGNED_INT 1u
#define VGPU_NVML_VALUE_UNSIGNED_LONG 2u
#define VGPU_NVML_VALUE_UNSIGNED_LONG_LONG 3u
#define VGPU_NVML_VALUE_SIGNED_LONG_LONG 4u
#define VGPU_NVML_VALUE_SIGNED_INT 5u
#define VGPU_NVML_VALUE_UNSIGNED_SHORT 6u

typedef unsigned int nvmlReturn_t;

/* Handles are opaque pointers that the library owns. */
typedef struct vgpu_nvml_device_st *nvmlDevice_t;
typedef struct vgpu_nvml_event_set_st *nvmlEventSet_t;
typedef struct vgpu_nvml_gpu_instance_st *nvmlGpuInstance_t;
typedef struct vgpu_nvml_compute_instance_st *nvmlComputeInstance_t;

typedef struct {
    nvmlDevice_t device;
    unsigned long long eventType;
    unsigned long long eventData;
    unsigned int gpuInstanceId;
    unsigned int computeInstanceId;
} nvmlEventData_t;

typedef struct {
    unsigned long long total;
    unsigned long long free;
    unsigned long long used;
} nvmlMemory_t;

typedef struct {
    char busIdLegacy[16];
    unsigned int domain;
    unsigned int bus;
    unsigned int device;
    unsigned int pciDeviceId;
    unsigned int pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;

typedef struct {
    unsigned int pid;
    unsigned long long usedGpuMemory;
    unsigned int gpuInstanceId;
    unsigned int computeInstanceId;
} nvmlProcessInfo_t;

typedef union {
    double dVal;
    int siVal;
    unsigned int uiVal;
    unsigned long ulVal;
    unsigned long long ullVal;
    long long sllVal;
    unsigned short usVal;
} nvmlValue_t;

typedef struct {
    unsigned int fieldId;
    unsigned int scopeId;
    long long timestamp;
    long long latencyUsec;
    unsigned int valueType;
    nvmlReturn_t nvmlReturn;
    nvmlValue_t value;
} nvmlFieldValue_t;

/* Limits of a cgroup on one card, in bytes; nameSpace is the full path of the cgroup's folder. No limit is soft 0 and
   hard all ones. */
typedef struct {
    const char *nameSpace;
    unsigned long long softLimit;
    unsigned long long hardLimit;
} nvmlSetMemoryLimits_v1_t;

typedef struct {
    const char *nameSpace;
    unsigned long long softLimit;
    unsigned long long hardLimit;
    unsigned long long currentUsed;
} nvmlGetMemoryLimits_v1_t;
/* Slices of memory of a card, or of compute of a GPU instance. */
typedef struct {
    unsigned int start;
    unsigned int size;
} nvmlGpuInstancePlacement_t;

typedef nvmlGpuInstancePlacement_t nvmlComputeInstancePlacement_t;

typedef struct {
    unsigned int id;
    unsigned int isP2pSupported;
    unsigned int sliceCount;
    unsigned int instanceCount;
    unsigned int multiprocessorCount;
    unsigned int copyEngineCount;
    unsigned int decoderCount;
    unsigned int encoderCount;
    unsigned int jpegCount;
    unsigned int ofaCount;
    unsigned long long memorySizeMB;
} nvmlGpuInstanceProfileInfo_t;

typedef struct {
    unsigned int version;
    unsigned int id;
    unsigned int isP2pSupported;
    unsigned int sliceCount;
    unsigned int instanceCount;
    unsigned int multiprocessorCount;
    unsigned int copyEngineCount;
    unsigned int decoderCount;
    unsigned int encoderCount;
    unsigned int jpegCount;
    unsigned int ofaCount;
    unsigned long long memorySizeMB;
    char name[96];
} nvmlGpuInstanceProfileInfo_v2_t;

typedef struct {
    nvmlDevice_t device;
    unsigned int id;
    unsigned int profileId;
    nvmlGpuInstancePlacement_t placement;
} nvmlGpuInstanceInfo_t;

typedef struct {
    unsigned int id;
    unsigned int sliceCount;
    unsigned int instanceCount;
    unsigned int multiprocessorCount;
    unsigned int sharedCopyEngineCount;
    unsigned int sharedDecoderCount;
    unsigned int sharedEncoderCount;
    unsigned int sharedJpegCount;
    unsigned int sharedOfaCount;
} nvmlComputeInstanceProfileInfo_t;

typedef struct {
    nvmlDevice_t device;
    nvmlGpuInstance_t gpuInstance;
    unsigned int id;
    unsigned int profileId;
    nvmlComputeInstancePlacement_t placement;
} nvmlComputeInstanceInfo_t;

typedef nvmlReturn_t nvmlInit_v2_fn(void);
typedef nvmlReturn_t nvmlSystemGetDriverVersion_fn(char *version, unsigned int length);
typedef nvmlReturn_t nvmlDeviceGetCount_v2_fn(unsigned int *count);
typedef nvmlReturn_t nvmlDeviceGetHandleByIndex_v2_fn(unsigned int index, nvmlDevice_t *device);
typedef nvmlReturn_t nvmlDeviceGetHandleByUUID_fn(const char *uuid, nvmlDevice_t *device);
typedef nvmlReturn_t nvmlDeviceGetIndex_fn(nvmlDevice_t device, unsigned int *index);
typedef nvmlReturn_t nvmlDeviceGetName_fn(nvmlDevice_t device, char *name, unsigned int length);
typedef nvmlReturn_t nvmlDeviceGetUUID_fn(nvmlDevice_t device, char *uuid, unsigned int length);
typedef nvmlReturn_t nvmlDeviceGetPciInfo_v3_fn(nvmlDevice_t device, nvmlPciInfo_t *pci);
typedef nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2_fn(nvmlDevice_t device, unsigned int link, nvmlPciInfo_t *pci);
typedef nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType_fn(nvmlDevice_t device, unsigned int link, unsigned int *kind);
typedef nvmlReturn_t nvmlDeviceGetMemoryInfo_fn(nvmlDevice_t device, nvmlMemory_t *memory);
typedef nvmlReturn_t nvmlDeviceGetMigMode_fn(nvmlDevice_t device, unsigned int *current, unsigned int *pending);
typedef nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3_fn(nvmlDevice_t device, unsigned int *count,
                                                                nvmlProcessInfo_t *processes);
typedef nvmlReturn_t nvmlDeviceGetFieldValues_fn(nvmlDevice_t device, int count, nvmlFieldValue_t *values);
typedef nvmlReturn_t nvmlDeviceGetRemappedRows_fn(nvmlDevice_t device, unsigned int *corrected,
                                                  unsigned int *uncorrected, unsigned int *pending,
                                                  unsigned int *failed);
typedef nvmlReturn_t nvmlDeviceGetSupportedEventTypes_fn(nvmlDevice_t device, unsigned long long *types);
typedef nvmlReturn_t nvmlDeviceRegisterEvents_fn(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set);
typedef nvmlReturn_t nvmlEventSetCreate_fn(nvmlEventSet_t *set);
typedef nvmlReturn_t nvmlEventSetFree_fn(nvmlEventSet_t set);
typedef nvmlReturn_t nvmlEventSetWait_v2_fn(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout_ms);
typedef nvmlReturn_t nvmlDeviceSetMemoryLimits_v1_fn(nvmlDevice_t device, nvmlSetMemoryLimits_v1_t *limits);
typedef nvmlReturn_t nvmlDeviceGetMemoryLimits_v1_fn(nvmlDevice_t device, nvmlGetMemoryLimits_v1_t *limits);

/*
 * MIG. Lists of instances and placements have no room of their own in their arguments: the caller's must be large
 * enough for what the profile says.
 */
typedef nvmlReturn_t nvmlDeviceSetMigMode_fn(nvmlDevice_t device, unsigned int mode, nvmlReturn_t *activation);
typedef nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfo_fn(nvmlDevice_t device, unsigned int profile,
                                                            nvmlGpuInstanceProfileInfo_t *info);
typedef nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoV_fn(nvmlDevice_t device, unsigned int profile,
                                                             nvmlGpuInstanceProfileInfo_v2_t *info);
typedef nvmlReturn_t nvmlDeviceGetGpuInstancePossiblePlacements_v2_fn(nvmlDevice_t device, unsigned int profile_id,
                                                                      nvmlGpuInstancePlacement_t *placements,
                                                                      unsigned int *count);
typedef nvmlReturn_t nvmlDeviceCreateGpuInstanceWithPlacement_fn(nvmlDevice_t device, unsigned int profile_id,
                                                                 const nvmlGpuInstancePlacement_t *placement,
                                                                 nvmlGpuInstance_t *instance);
typedef nvmlReturn_t nvmlDeviceGetGpuInstances_fn(nvmlDevice_t device, unsigned int profile_id,
                                                  nvmlGpuInstance_t *instances, unsigned int *count);
typedef nvmlReturn_t nvmlDeviceGetGpuInstanceById_fn(nvmlDevice_t device, unsigned int id,
                                                     nvmlGpuInstance_t *instance);
typedef nvmlReturn_t nvmlGpuInstanceGetInfo_fn(nvmlGpuInstance_t instance, nvmlGpuInstanceInfo_t *info);
typedef nvmlReturn_t nvmlGpuInstanceDestroy_fn(nvmlGpuInstance_t instance);
typedef nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfo_fn(nvmlGpuInstance_t instance, unsigned int profile,
                                                                     unsigned int engines,
                                                                     nvmlComputeInstanceProfileInfo_t *info);
typedef nvmlReturn_t nvmlGpuInstanceCreateComputeInstance_fn(nvmlGpuInstance_t instance, unsigned int profile_id,
                                                             nvmlComputeInstance_t *compute);
typedef nvmlReturn_t nvmlGpuInstanceGetComputeInstanceById_fn(nvmlGpuInstance_t instance, unsigned int id,
                                                              nvmlComputeInstance_t *compute);
typedef nvmlReturn_t nvmlComputeInstanceGetInfo_v2_fn(nvmlComputeInstance_t compute, nvmlComputeInstanceInfo_t *info);
typedef nvmlReturn_t nvmlComputeInstanceDestroy_fn(nvmlComputeInstance_t compute);
typedef nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount_fn(nvmlDevice_t device, unsigned int *count);
typedef nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex_fn(nvmlDevice_t device, unsigned int index,
                                                            nvmlDevice_t *mig);
typedef nvmlReturn_t nvmlDeviceGetGpuInstanceId_fn(nvmlDevice_t mig, unsigned int *id);
typedef nvmlReturn_t nvmlDeviceGetComputeInstanceId_fn(nvmlDevice_t mig, unsigned int *id);

#endif
