// The arguments of all ops.
#pragma once

#include "common/mining.h"
#include "common/part_metric.h"
#include "common/probe.h"
#include "common/protocol.h"
#include "common/ranking.h"
#include "common/region.h"
#include "common/rerank.h"
#include "common/sta.h"
