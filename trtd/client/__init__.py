"""The client library: `Client` blocks, `trtd.aio.Client` awaits; both speak wire protocol v1 to one tenant's socket.

Errors are those of `trtd.errors`, one type per code. Covered here: requests by id, sending again after a reconnection,
deadlines. Not covered: starting or operating a daemon, which is the `trtd` command's work.
"""

from __future__ import annotations

from trtd.client.handle import Handle as Handle
from trtd.client.sync import Client as Client
from trtd.client.transport import CurveKeys as CurveKeys
from trtd.client.values import Answer as Answer
from trtd.client.values import BFloat16 as BFloat16
from trtd.client.values import Float8 as Float8
from trtd.client.values import Health as Health
from trtd.client.values import Timing as Timing
from trtd.errors import Barred as Barred
from trtd.errors import DeadlineExceeded as DeadlineExceeded
from trtd.errors import Draining as Draining
from trtd.errors import Internal as Internal
from trtd.errors import InvalidInput as InvalidInput
from trtd.errors import Malformed as Malformed
from trtd.errors import ModelFailed as ModelFailed
from trtd.errors import NotAllowed as NotAllowed
from trtd.errors import OutOfMemory as OutOfMemory
from trtd.errors import Overloaded as Overloaded
from trtd.errors import Poisonous as Poisonous
from trtd.errors import TooLarge as TooLarge
from trtd.errors import TrtdError as TrtdError
from trtd.errors import Unavailable as Unavailable
from trtd.errors import UnknownModel as UnknownModel
from trtd.errors import Unreachable as Unreachable
from trtd.errors import UnsupportedDtype as UnsupportedDtype
from trtd.errors import UnsupportedVersion as UnsupportedVersion
from trtd.errors import Usage as Usage
from trtd.errors import WorkerLost as WorkerLost
from trtd.wire.messages import ModelDescription as ModelDescription
from trtd.wire.messages import TensorContract as TensorContract
