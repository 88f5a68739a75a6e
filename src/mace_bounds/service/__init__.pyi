from .app import create_app as create_app
from .config import ServiceConfig as ServiceConfig
from .keys import new_key as new_key
from .problems import Problem as Problem
from .serving import serve as serve
from .tools import mcp_server as mcp_server
