/*
 * The part of libcndev's C ABI that vgpu calls, written by us from the facts in the field notes (names, numbers,
 * layouts of cndev 3.9 to 6.5). Every structure's size and offsets are asserted by the generated file.
 *
 * - `version` fields: the caller writes VGPU_CNDEV_VERSION, or the library refuses the call.
 * - Handles are numbers; neither the index nor the number of the card's node may be taken for one.
 * - Strings come in fixed arrays that old libraries do not end; they are scanned to the array's end at most.
 *
 * Functions are typedefs, never declarations, so that nothing links to the library: sys.rs looks each one up by the
 * typedef's name less the suffix "_fn". `cargo xtask bindings` turns this file into src/bindings.rs.
 */
#ifndef VGPU_CNDEV_H
#define VGPU_CNDEV_H

/* What every versioned structure says; the newest that any public library knows. */
#define VGPU_CNDEV_VERSION 6

/* Return codes that this crate tells apart; any other number is kept as it is. */
#define VGPU_CNDEV_SUCCESS 0
#define VGPU_CNDEV_ERROR_NO_DRIVER 1
#define VGPU_CNDEV_ERROR_LOW_DRIVER_VERSION 2
#define VGPU_CNDEV_ERROR_UNSUPPORTED_API_VERSION 3
#define VGPU_CNDEV_ERROR_UNINITIALIZED 4
#define VGPU_CNDEV_ERROR_INVALID_DEVICE_ID 6
#define VGPU_CNDEV_ERROR_INSUFFICIENT_SPACE 9
#define VGPU_CNDEV_ERROR_NOT_SUPPORTED 10
#define VGPU_CNDEV_ERROR_NO_DEVICES 12
#define VGPU_CNDEV_ERROR_NOT_FOUND 14
#define VGPU_CNDEV_ERROR_TIMEOUT 17

/* Bytes of fixed arrays, the terminating NUL included where the library writes one. */
#define VGPU_CNDEV_UUID_SIZE 37
#define VGPU_CNDEV_NAME_SIZE 100
#define VGPU_CNDEV_MESSAGE_SIZE 512

/* Counts of fixed arrays. */
#define VGPU_CNDEV_INCIDENTS 64
#define VGPU_CNDEV_SMLU_ITEMS 2
#define VGPU_CNDEV_SMLU_PROFILES 128
#define VGPU_CNDEV_MIM_PROFILES 9

/* Index into the arrays of an sMLU's quota: what it may use, and what it uses. */
#define VGPU_CNDEV_SMLU_MAX 0
#define VGPU_CNDEV_SMLU_USAGE 1

typedef int cndevRet_t;
typedef int cndevDevice_t;
/* The instance's id times 256, plus the number of its card. */
typedef int cndevMluInstance_t;
typedef void *cndevEventHandle;

typedef struct {
    int version;
    unsigned int number;
} cndevCardInfo_t;

typedef struct {
    int version;
    unsigned char uuid[VGPU_CNDEV_UUID_SIZE];
    unsigned long ncsUUID64;
} cndevUUID_t;

/* MiB. */
typedef struct {
    long physicalMemoryTotal;
    long physicalMemoryUsed;
    long reservedMemory;
    long virtualMemoryTotal;
    long virtualMemoryUsed;
    unsigned long globalMemory;
    unsigned long reserved[16];
} cndevMemoryInfoV2_t;

/* The first version of it, up to cndev 3.14. */
typedef struct {
    int version;
    long physicalMemoryTotal;
    long physicalMemoryUsed;
    long virtualMemoryTotal;
    long virtualMemoryUsed;
    long channelNumber;
    long channelMemoryUsed[20];
    unsigned long globalMemory;
} cndevMemoryInfo_t;

typedef struct {
    int version;
    unsigned int mcuMajorVersion;
    unsigned int mcuMinorVersion;
    unsigned int mcuBuildVersion;
    unsigned int driverMajorVersion;
    unsigned int driverMinorVersion;
    unsigned int driverBuildVersion;
} cndevVersionInfo_t;

typedef struct {
    unsigned int subsystemId;
    unsigned int deviceId;
    unsigned short vendor;
    unsigned short subsystemVendor;
    unsigned int domain;
    unsigned int bus;
    unsigned int device;
    unsigned int function;
    unsigned short moduleId;
    unsigned short slotId;
    unsigned int reserved[8];
} cndevPCIeInfoV2_t;

typedef struct {
    int version;
    int nodeId;
} cndevNUMANodeId_t;

typedef struct {
    int version;
    int averageCoreUtilization;
    int coreUtilization[80];
} cndevUtilizationInfo_t;

typedef struct {
    int version;
    unsigned int pid;
    unsigned long physicalMemoryUsed;
    unsigned long virtualMemoryUsed;
} cndevProcessInfo_t;

typedef struct {
    int version;
    unsigned int volatileSramEccSbeCounter;
    unsigned int volatileSramEccDbeCounter;
    unsigned int volatileSramEccParityCounter;
    unsigned int volatileDramEccSbeCounter;
    unsigned int volatileDramEccDbeCounter;
    unsigned long aggregateDramEccSbeCounter;
    unsigned long aggregateDramEccDbeCounter;
    unsigned long aggregateSramEccSbeCounter;
    unsigned long aggregateSramEccDbeCounter;
    unsigned long aggregateSramEccParityCounter;
    unsigned char aggregateSramEccThresholdExceeded;
    unsigned long reserved[11];
} cndevMemEccCounter_t;

typedef struct {
    int version;
    unsigned char isRetirePending;
    unsigned char isPending;
    unsigned char isFailure;
} cndevRepairStatus_t;

typedef struct {
    int version;
    int health;
    int deviceState;
    int driverState;
} cndevCardHealthState_t;

typedef struct {
    char msg[VGPU_CNDEV_MESSAGE_SIZE];
    unsigned int device_id;
    unsigned int bdf;
    int code;
    unsigned int category;
    unsigned int severity;
} cndevDiagErrorDetail_t;

typedef struct {
    int system;
    int health;
    cndevDiagErrorDetail_t error;
} cndevIncidentInfo_t;

typedef struct {
    int health;
    int deviceState;
    int driverState;
    int overallHealth;
    unsigned int incident_count;
    cndevIncidentInfo_t incidents[VGPU_CNDEV_INCIDENTS];
    unsigned int reserved[8];
} cndevCardHealthStateV2_t;

typedef struct {
    int version;
    unsigned int heartbeatCount;
} cndevCardHeartbeatCount_t;

/* Cores, and clusters of cores. */
typedef struct {
    int version;
    int count;
} cndevCardCoreCount_t;

typedef struct {
    int version;
    int relation;
} cndevTopologyRelationship_t;

typedef struct {
    int macState;
    int serdesState;
    int presenceState;
    unsigned int serdesProgress;
    unsigned int reserved[7];
} cndevMLULinkStatusV2_t;

/* The first version of it, up to cndev 3.14; what follows the first state is not read. */
typedef struct {
    int version;
    int isActive;
    int unread[2];
} cndevMLULinkStatus_t;

typedef struct {
    int version;
    unsigned long mcSn;
    unsigned long baSn;
    unsigned int slotId;
    unsigned int portId;
    unsigned char devIp[16];
    unsigned char uuid[VGPU_CNDEV_UUID_SIZE];
    unsigned int devIpVersion;
    unsigned int isIpValid;
    int connectType;
    unsigned long ncsUUID64;
    unsigned char mac_addr[6];
    char port_name[256];
} cndevMLULinkRemoteInfo_t;

typedef struct {
    int version;
    int mode;
} cndevComputeMode_t;

/* MIM, sMLU: on or off. */
typedef struct {
    int version;
    int mimMode;
} cndevMimMode_t;

typedef struct {
    int version;
    int smluMode;
} cndevSMLUMode_t;

typedef struct {
    int version;
    int start;
    int size;
} cndevMluInstancePlacement_t;

/* No public word says in which unit memorySize is. */
typedef struct {
    int version;
    int profileId;
    int mluCoreCount;
    int vpuCount;
    int jpuCount;
    int gdmaCount;
    int memorySize;
    char name[VGPU_CNDEV_NAME_SIZE];
} cndevMluInstanceProfileInfo_t;

typedef struct {
    int version;
    cndevDevice_t parentDevice;
    int instanceId;
    int profileId;
    unsigned char uuid[VGPU_CNDEV_UUID_SIZE];
    int domain;
    int bus;
    int device;
    int function;
    cndevMluInstancePlacement_t placement;
    int mluCoreCount;
    int vpuCount;
    int jpuCount;
    int gdmaCount;
    int memorySize;
    char profileName[VGPU_CNDEV_NAME_SIZE];
    char devNodeName[VGPU_CNDEV_NAME_SIZE];
    char ipcmDevNodeName[VGPU_CNDEV_NAME_SIZE];
    char instanceName[VGPU_CNDEV_NAME_SIZE];
    unsigned int reserved[128];
} cndevMluInstanceInfo_t;

/* Percent of the card's cores, and bytes. */
typedef struct {
    int version;
    unsigned int mluQuota;
    unsigned long memorySize;
} cndevSMluSet_t;

typedef struct {
    int version;
    int profileId;
    int instanceId;
    unsigned char uuid[VGPU_CNDEV_UUID_SIZE];
    int domain;
    int bus;
    int device;
    int function;
    char profileName[VGPU_CNDEV_NAME_SIZE];
    char instanceName[VGPU_CNDEV_NAME_SIZE];
    char devNodeName[VGPU_CNDEV_NAME_SIZE];
    unsigned int mluQuota[VGPU_CNDEV_SMLU_ITEMS];
    unsigned long memorySize[VGPU_CNDEV_SMLU_ITEMS];
    unsigned int reserved[128];
} cndevSMluInfo_t;

typedef struct {
    int version;
    int count;
    int profileId[VGPU_CNDEV_SMLU_PROFILES];
} cndevSMluProfileIdInfo_t;

typedef struct {
    int version;
    int profileId;
    char name[VGPU_CNDEV_NAME_SIZE];
    unsigned int totalCapacity;
    unsigned int remainCapacity;
    unsigned int mluQuota[VGPU_CNDEV_SMLU_ITEMS];
    unsigned long memorySize[VGPU_CNDEV_SMLU_ITEMS];
} cndevSMluProfileInfo_t;

typedef struct {
    unsigned int version;
    cndevDevice_t device;
    unsigned long eventData;
    unsigned long eventType;
    unsigned long timestamp;
    unsigned int computeInstanceId;
    unsigned int mluInstanceId;
    unsigned long reserved[8];
} cndevEventData_t;

/* Life of the library. */
typedef cndevRet_t (*cndevInit_fn)(int reserved);
typedef cndevRet_t (*cndevRelease_fn)(void);
typedef cndevRet_t (*cndevGetDriverVersion_fn)(unsigned int *major, unsigned int *minor, unsigned int *build);
typedef cndevRet_t (*cndevGetVersionInfo_fn)(cndevVersionInfo_t *versions, cndevDevice_t device);

/* Cards, and what they are. */
typedef cndevRet_t (*cndevGetDeviceCount_fn)(cndevCardInfo_t *count);
typedef cndevRet_t (*cndevGetDeviceHandleByIndex_fn)(int index, cndevDevice_t *device);
typedef cndevRet_t (*cndevGetDeviceHandleByPciBusId_fn)(const char *address, cndevDevice_t *device);
typedef cndevRet_t (*cndevGetUUID_fn)(cndevUUID_t *uuid, cndevDevice_t device);
typedef cndevRet_t (*cndevDeviceGetMinorNumber_fn)(unsigned int *minor, cndevDevice_t device);
typedef const char *(*cndevGetCardNameStringByDevId_fn)(cndevDevice_t device);
typedef cndevRet_t (*cndevGetPCIeInfoV2_fn)(cndevPCIeInfoV2_t *pci, cndevDevice_t device);
typedef cndevRet_t (*cndevGetNUMANodeIdByDevId_fn)(cndevNUMANodeId_t *node, cndevDevice_t device);
typedef cndevRet_t (*cndevGetCoreCount_fn)(cndevCardCoreCount_t *cores, cndevDevice_t device);
typedef cndevRet_t (*cndevGetClusterCount_fn)(cndevCardCoreCount_t *clusters, cndevDevice_t device);

/* Use. */
typedef cndevRet_t (*cndevGetMemoryUsageV2_fn)(cndevMemoryInfoV2_t *memory, cndevDevice_t device);
typedef cndevRet_t (*cndevGetMemoryUsage_fn)(cndevMemoryInfo_t *memory, cndevDevice_t device);
typedef cndevRet_t (*cndevGetDeviceUtilizationInfo_fn)(cndevUtilizationInfo_t *use, cndevDevice_t device);
typedef cndevRet_t (*cndevGetProcessInfo_fn)(unsigned int *count, cndevProcessInfo_t *list, cndevDevice_t device);

/* Health. */
typedef cndevRet_t (*cndevGetCardHealthState_fn)(cndevCardHealthState_t *health, cndevDevice_t device);
typedef cndevRet_t (*cndevGetCardHealthStateV2_fn)(cndevCardHealthStateV2_t *health, cndevDevice_t device);
typedef cndevRet_t (*cndevGetCardHeartbeatCount_fn)(cndevCardHeartbeatCount_t *beats, cndevDevice_t device);
typedef cndevRet_t (*cndevGetComputeMode_fn)(cndevComputeMode_t *mode, cndevDevice_t device);
typedef cndevRet_t (*cndevGetMemEccCounter_fn)(cndevMemEccCounter_t *errors, cndevDevice_t device);
typedef cndevRet_t (*cndevGetRepairStatus_fn)(cndevRepairStatus_t *repair, cndevDevice_t device);
typedef cndevRet_t (*cndevEventHandleCreate_fn)(cndevEventHandle *events);
typedef cndevRet_t (*cndevEventHandleDestroy_fn)(cndevEventHandle events);
typedef cndevRet_t (*cndevRegisterEvents_fn)(cndevEventHandle events, unsigned long types, cndevDevice_t device);
typedef cndevRet_t (*cndevEventWait_fn)(cndevEventHandle events, cndevEventData_t *event, int milliseconds);
typedef cndevRet_t (*cndevGetSupportedEventTypes_fn)(unsigned long *types, cndevDevice_t device);

/* How near cards are. */
typedef cndevRet_t (*cndevTopologyGetRelationship_fn)(cndevTopologyRelationship_t *relation, cndevDevice_t device,
                                                      cndevDevice_t other);
typedef int (*cndevGetMLULinkPortNumber_fn)(cndevDevice_t device);
typedef cndevRet_t (*cndevGetMLULinkStatusV2_fn)(cndevMLULinkStatusV2_t *status, cndevDevice_t device, int link);
typedef cndevRet_t (*cndevGetMLULinkStatus_fn)(cndevMLULinkStatus_t *status, cndevDevice_t device, int link);
typedef cndevRet_t (*cndevGetMLULinkRemoteInfo_fn)(cndevMLULinkRemoteInfo_t *remote, cndevDevice_t device, int link);

/* MIM. */
typedef cndevRet_t (*cndevGetMimMode_fn)(cndevMimMode_t *mode, cndevDevice_t device);
typedef cndevRet_t (*cndevSetMimMode_fn)(cndevMimMode_t *mode, cndevDevice_t device);
typedef cndevRet_t (*cndevGetMluInstanceProfileInfo_fn)(cndevMluInstanceProfileInfo_t *profile, int number,
                                                        cndevDevice_t device);
typedef cndevRet_t (*cndevGetMluInstancePossiblePlacements_fn)(int *count, cndevMluInstancePlacement_t *placements,
                                                               int profileId, cndevDevice_t device);
typedef cndevRet_t (*cndevGetMaxMluInstanceCount_fn)(int *count, int profileId, cndevDevice_t device);
typedef cndevRet_t (*cndevCreateMluInstanceByProfileIdWithPlacement_fn)(cndevMluInstancePlacement_t *placement,
                                                                        cndevMluInstance_t *instance,
                                                                        unsigned int profileId, cndevDevice_t device,
                                                                        char *name);
typedef cndevRet_t (*cndevDestroyMluInstanceByHandle_fn)(cndevMluInstance_t instance);
typedef cndevRet_t (*cndevGetMluInstanceInfo_fn)(cndevMluInstanceInfo_t *info, cndevMluInstance_t instance);
typedef cndevRet_t (*cndevGetAllMluInstanceInfo_fn)(int *count, cndevMluInstanceInfo_t *list, cndevDevice_t device);

/* sMLU. */
typedef cndevRet_t (*cndevGetSMLUMode_fn)(cndevSMLUMode_t *mode, cndevDevice_t device);
typedef cndevRet_t (*cndevSetSMLUMode_fn)(cndevSMLUMode_t *mode, cndevDevice_t device);
typedef cndevRet_t (*cndevGetSMluProfileIdInfo_fn)(cndevSMluProfileIdInfo_t *ids, cndevDevice_t device);
typedef cndevRet_t (*cndevGetSMluProfileInfo_fn)(cndevSMluProfileInfo_t *profile, int profileId, cndevDevice_t device);
typedef cndevRet_t (*cndevCreateSMluProfileInfo_fn)(cndevSMluSet_t *size, int *profileId, cndevDevice_t device);
typedef cndevRet_t (*cndevDestroySMluProfileInfo_fn)(int profileId, cndevDevice_t device);
typedef cndevRet_t (*cndevCreateSMluInstanceByProfileId_fn)(cndevMluInstance_t *instance, unsigned int profileId,
                                                            cndevDevice_t device, char *name);
typedef cndevRet_t (*cndevDestroySMluInstanceByHandle_fn)(cndevMluInstance_t instance);
typedef cndevRet_t (*cndevGetSMluInstanceInfo_fn)(cndevSMluInfo_t *info, cndevMluInstance_t instance);
typedef cndevRet_t (*cndevGetAllSMluInstanceInfo_fn)(int *count, cndevSMluInfo_t *list, cndevDevice_t device);
typedef cndevRet_t (*cndevUpdateSMluInstanceQuotaByHandle_fn)(cndevMluInstance_t instance, cndevSMluSet_t *size);

#endif
